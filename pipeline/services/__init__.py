"""What Forefill does, one service a file: each combines stores and adapters in the order the guarantees need."""
