//! What this machine can do at best: one thread that receives, sums and writes what a producer would send, and one that
//! sends a file with `sendfile`. Prints CPU seconds of that thread per GB, as JSON.
//!
//! `cargo run --release -p ottla-core --example limit -- DIR` (a directory on the disk to measure).
#![allow(
    clippy::disallowed_methods,
    clippy::cast_precision_loss,
    clippy::print_stdout,
    reason = "a program that measures what the broker stands on"
)]

use std::fs::File;
use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::thread;

const CHUNK_BYTES: usize = 64 << 10;
const TOTAL_BYTES: usize = 1 << 30;
const GB: f64 = 1e9;

fn main() -> io::Result<()> {
    let dir = std::env::args().nth(1).map_or_else(std::env::temp_dir, PathBuf::from);
    let path = dir.join(format!("limit-{}", std::process::id()));
    let result = measure(&path);
    std::fs::remove_file(&path)?;
    let (produce, consume) = result?;
    println!(r#"{{"receive, CRC-32C, write": {produce:.3}, "sendfile": {consume:.3}}}"#);
    Ok(())
}

fn measure(path: &Path) -> io::Result<(f64, f64)> {
    let produced = receive_and_write(path)?;
    Ok((produced, send_file(path)?))
}

fn connected() -> io::Result<(TcpStream, TcpStream)> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let client = TcpStream::connect(listener.local_addr()?)?;
    Ok((client, listener.accept()?.0))
}

/// User and system time of this thread in seconds.
fn cpu_seconds() -> f64 {
    // SAFETY: zero is a valid value for every field, and the structure outlives the call.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    // SAFETY: as above.
    unsafe { libc::getrusage(libc::RUSAGE_THREAD, &raw mut usage) };
    let seconds = |time: libc::timeval| time.tv_sec as f64 + time.tv_usec as f64 / 1e6;
    seconds(usage.ru_utime) + seconds(usage.ru_stime)
}

fn receive_and_write(path: &Path) -> io::Result<f64> {
    let (mut client, mut server) = connected()?;
    let sender = thread::spawn(move || {
        let chunk = vec![0x5a; CHUNK_BYTES];
        (0..TOTAL_BYTES / CHUNK_BYTES).try_for_each(|_| client.write_all(&chunk))
    });
    let mut file = File::create(path)?;
    let mut buffer = vec![0; CHUNK_BYTES];
    let mut sum = 0;
    let before = cpu_seconds();
    for _ in 0..TOTAL_BYTES / CHUNK_BYTES {
        server.read_exact(&mut buffer)?;
        sum ^= crc32c::crc32c(&buffer);
        file.write_all(&buffer)?;
    }
    let used = cpu_seconds() - before;
    std::hint::black_box(sum);
    sender.join().map_err(|_| io::Error::other("the sender panicked"))??;
    Ok(used / (TOTAL_BYTES as f64 / GB))
}

fn send_file(path: &Path) -> io::Result<f64> {
    let (client, mut server) = connected()?;
    let receiver = thread::spawn(move || {
        let mut buffer = vec![0; 1 << 20];
        let mut received = 0;
        while received < TOTAL_BYTES {
            received += match server.read(&mut buffer)? {
                0 => return Err(io::Error::from(io::ErrorKind::UnexpectedEof)),
                count => count,
            };
        }
        Ok(())
    });
    let file = File::open(path)?;
    let mut offset: libc::off_t = 0;
    let before = cpu_seconds();
    while (offset as usize) < TOTAL_BYTES {
        // SAFETY: both descriptors are open, and the offset outlives the call.
        let sent = unsafe {
            libc::sendfile(
                client.as_raw_fd(),
                file.as_raw_fd(),
                &raw mut offset,
                TOTAL_BYTES - offset as usize,
            )
        };
        if sent <= 0 {
            return Err(io::Error::last_os_error());
        }
    }
    let used = cpu_seconds() - before;
    receiver
        .join()
        .map_err(|_| io::Error::other("the receiver panicked"))??;
    Ok(used / (TOTAL_BYTES as f64 / GB))
}
