//! A whole real cluster in network namespaces of one machine.
