"""The outside world as the ports want it: each adapter translates between one foreign thing and aimd, and decides nothing."""
