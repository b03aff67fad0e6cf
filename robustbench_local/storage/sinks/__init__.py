"""Where finished rows are sent besides their folder. Each service has a file, and its library is loaded there alone."""
