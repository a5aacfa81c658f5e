"""Made-up cardiometabolic patients for demos and tests. `generator.generate` writes them; no real person is behind any.

`population` draws what is true of a patient, `records` what a hospital would have written down (gaps, errors),
`generator` writes one table and one consent file a hospital, in chunks.
"""
