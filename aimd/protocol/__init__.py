"""What goes over aimd's sockets, as typed values. No I/O, no clock."""
