//! Writes the tiny model of every family into a folder, for `tests/golden/families.py`:
//! `cargo run --example families --features dsk-daemon-engine/testkit -- FOLDER SEED`.

use std::path::PathBuf;

use dsk_daemon_engine::gguf::testkit::families;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let folder = PathBuf::from(arguments.next().ok_or("which folder?")?);
    let seed = arguments.next().ok_or("which seed?")?.parse()?;
    std::fs::create_dir_all(&folder)?;
    for name in families::names() {
        let bytes = families::family(name, seed).ok_or("a name without a family")?;
        std::fs::write(folder.join(format!("{name}.gguf")), bytes)?;
    }
    Ok(())
}
