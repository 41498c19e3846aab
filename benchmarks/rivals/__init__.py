"""What people do instead of Forefill, each as well as it can be done."""
