//! The copy itself.

use std::fmt;
use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// Every user may read: the application runs as another one than this program.
const FILE_MODE: u32 = 0o644;
/// As [`FILE_MODE`], for folders.
const FOLDER_MODE: u32 = 0o755;

/// Why a folder could not be copied.
#[derive(Debug)]
pub enum Error {
    /// The image has no such folder.
    Unknown {
        /// The folder that was asked for.
        folder: String,
        /// Those that exist.
        known: Vec<String>,
    },
    /// Reading or writing failed.
    Io {
        /// What was being done.
        action: &'static str,
        /// To which file.
        path: PathBuf,
        /// The reason.
        source: io::Error,
    },
    /// Something that is neither file nor folder.
    Kind(PathBuf),
}

impl fmt::Display for Error {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown { folder, known } => write!(
                formatter,
                "this image has no folder {folder:?}; it has: {}. Operator and agents image must be of one version",
                known.join(", ")
            ),
            Self::Io { action, path, source } => {
                write!(formatter, "cannot {action} {}: {source}", path.display())
            }
            Self::Kind(path) => write!(
                formatter,
                "{} is neither a file nor a folder and cannot be copied",
                path.display()
            ),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Io { source, .. } => Some(source),
            Self::Unknown { .. } | Self::Kind(_) => None,
        }
    }
}

/// Names what was being done to which file.
trait At<T> {
    fn at(self, action: &'static str, path: &Path) -> Result<T, Error>;
}

impl<T> At<T> for io::Result<T> {
    fn at(self, action: &'static str, path: &Path) -> Result<T, Error> {
        self.map_err(|source| Error::Io {
            action,
            path: path.to_owned(),
            source,
        })
    }
}

/// Copies `folder` under `folders` into `target`, which exists or is made. Gives the number of files.
///
/// It may run again over what it has copied: a file is replaced at once and never seen half-written.
pub fn install(folders: &Path, folder: &str, target: &Path) -> Result<usize, Error> {
    let known = names(folders)?;
    if !known.iter().any(|name| name == folder) {
        return Err(Error::Unknown {
            folder: folder.to_owned(),
            known,
        });
    }
    // The mode of a volume's own folder is its owner's business.
    fs::create_dir_all(target).at("make", target)?;
    copy(&folders.join(folder), target)
}

fn names(folders: &Path) -> Result<Vec<String>, Error> {
    let mut names = Vec::new();
    for entry in fs::read_dir(folders).at("read", folders)? {
        let entry = entry.at("read", folders)?;
        names.push(entry.file_name().to_string_lossy().into_owned());
    }
    names.sort();
    Ok(names)
}

fn copy(source: &Path, target: &Path) -> Result<usize, Error> {
    let mut files = 0;
    for entry in fs::read_dir(source).at("read", source)? {
        let entry = entry.at("read", source)?;
        let (from, to) = (entry.path(), target.join(entry.file_name()));
        let kind = entry.file_type().at("read", &from)?;
        if kind.is_dir() {
            if !to.is_dir() {
                fs::create_dir(&to).at("make", &to)?;
                fs::set_permissions(&to, Permissions::from_mode(FOLDER_MODE)).at("set the mode of", &to)?;
            }
            files += copy(&from, &to)?;
        } else if kind.is_file() {
            replace(&from, &to)?;
            files += 1;
        } else {
            return Err(Error::Kind(from));
        }
    }
    Ok(files)
}

fn replace(from: &Path, to: &Path) -> Result<(), Error> {
    let mut name = to.as_os_str().to_owned();
    name.push(".new");
    let new = PathBuf::from(name);
    fs::copy(from, &new).at("write", &new)?;
    fs::set_permissions(&new, Permissions::from_mode(FILE_MODE)).at("set the mode of", &new)?;
    fs::rename(&new, to).at("write", to)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A folder of one test's own, removed at its end.
    struct Scratch(PathBuf);

    impl Scratch {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("session-agents-{}-{name}", std::process::id()));
            fs::create_dir_all(path.join("agents/php/session")).unwrap();
            fs::write(path.join("agents/php/session/a.ini"), "one").unwrap();
            fs::write(path.join("agents/php/b.txt"), "two").unwrap();
            fs::create_dir(path.join("agents/tomcat")).unwrap();
            Self(path)
        }

        fn install(&self, folder: &str) -> Result<usize, Error> {
            install(&self.0.join("agents"), folder, &self.0.join("volume"))
        }

        fn mode(&self, path: &str) -> u32 {
            fs::metadata(self.0.join(path)).unwrap().permissions().mode() & 0o7777
        }
    }

    impl Drop for Scratch {
        fn drop(&mut self) {
            fs::remove_dir_all(&self.0).unwrap();
        }
    }

    #[test]
    fn everything_of_the_folder_is_copied_and_readable_by_all() {
        let scratch = Scratch::new("copied");
        fs::set_permissions(scratch.0.join("agents/php/b.txt"), Permissions::from_mode(0o600)).unwrap();
        assert_eq!(scratch.install("php").unwrap(), 2);
        assert_eq!(
            fs::read_to_string(scratch.0.join("volume/session/a.ini")).unwrap(),
            "one"
        );
        assert_eq!(scratch.mode("volume/session"), FOLDER_MODE);
        assert_eq!(scratch.mode("volume/session/a.ini"), FILE_MODE);
        assert_eq!(scratch.mode("volume/b.txt"), FILE_MODE);
    }

    #[test]
    fn a_second_run_replaces_what_the_first_left() {
        let scratch = Scratch::new("again");
        scratch.install("php").unwrap();
        fs::write(scratch.0.join("agents/php/b.txt"), "three").unwrap();
        assert_eq!(scratch.install("php").unwrap(), 2);
        assert_eq!(
            fs::read_to_string(scratch.0.join("volume/b.txt")).unwrap(),
            "three"
        );
        let left: Vec<_> = fs::read_dir(scratch.0.join("volume")).unwrap().collect();
        assert_eq!(left.len(), 2, "{left:?}");
    }

    #[test]
    fn an_unknown_folder_is_an_error_that_names_the_known_ones() {
        let scratch = Scratch::new("unknown");
        for folder in ["perl", "..", "php/session", ""] {
            let error = scratch.install(folder).unwrap_err().to_string();
            assert!(error.contains("php, tomcat"), "{folder}: {error}");
        }
    }

    #[test]
    fn links_are_refused() {
        let scratch = Scratch::new("links");
        std::os::unix::fs::symlink("/etc/passwd", scratch.0.join("agents/php/link")).unwrap();
        assert!(matches!(scratch.install("php").unwrap_err(), Error::Kind(path) if path.ends_with("link")));
    }

    #[test]
    fn a_target_that_cannot_be_written_is_named() {
        let scratch = Scratch::new("target");
        fs::write(scratch.0.join("volume"), "a file").unwrap();
        let error = scratch.install("php").unwrap_err().to_string();
        assert!(error.contains("volume"), "{error}");
    }
}
