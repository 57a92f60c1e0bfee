//! One connection as a sans-I/O machine: frames in, reply slots in order, buffers and file ranges out.
