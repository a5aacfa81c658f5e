"""The only room that may import both sides: demo, in-process simulation, generator, benches."""
