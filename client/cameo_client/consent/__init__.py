"""What each patient agreed to, withdrew, and what was done on that ground. `store.ConsentStore` is the door."""
