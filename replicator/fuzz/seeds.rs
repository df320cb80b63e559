//! `seeds FOLDER`: writes the seed corpora of all targets, made from the captures, into a folder each.

use std::path::Path;
use std::{env, fs, io};

#[path = "../tests/support/encode.rs"]
mod encode;
#[path = "../tests/support/seeds.rs"]
mod seeds;
#[path = "../tests/support/transcript.rs"]
#[allow(dead_code, reason = "replies are of no use here")]
mod transcript;

fn main() -> io::Result<()> {
    let folder = env::args_os()
        .nth(1)
        .ok_or_else(|| io::Error::other("expected the folder of the corpora"))?;
    for (target, seeds) in [
        ("resp", seeds::resp()),
        ("memcached", seeds::memcached()),
        ("peer", seeds::peer()),
    ] {
        let folder = Path::new(&folder).join(target);
        fs::create_dir_all(&folder)?;
        for (number, seed) in seeds.into_iter().enumerate() {
            fs::write(folder.join(format!("capture-{number}")), seed)?;
        }
    }
    Ok(())
}
