//! How far a build has come, told to whoever shows it.

/// The steps of a build that take time, in the order in which they happen, and what else does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Fetching lists of packages.
    PackageLists,
    /// Fetching packages.
    Packages,
    /// Unpacking and installing packages.
    Install,
    /// Placing the files and running the commands of a recipe.
    Customize,
    /// Writing the installed system to one archive.
    PackUp,
    /// Unpacking an archive with a container image.
    Archive,
    /// Fetching and checking the layers of a container image.
    Layers,
    /// Reading the root once to check it.
    Survey,
    /// Unpacking the kernel and choosing its modules.
    Kernel,
    /// Packing the root into a squashfs.
    Root,
    /// Compressing the initramfs, as far as that was not done meanwhile.
    FirstStage,
    /// Cutting the blobs into chunks and storing them.
    Store,
    /// Writing a file for other tools.
    Export,
}

impl Step {
    /// What is going on, for a person.
    #[must_use]
    pub const fn title(self) -> &'static str {
        match self {
            Self::PackageLists => "fetching package lists",
            Self::Packages => "fetching packages",
            Self::Install => "installing packages",
            Self::Customize => "placing files, running commands",
            Self::PackUp => "packing up the system",
            Self::Archive => "unpacking the archive",
            Self::Layers => "fetching and checking layers",
            Self::Survey => "checking the root",
            Self::Kernel => "collecting kernel and modules",
            Self::FirstStage => "compressing the first stage",
            Self::Root => "packing the root",
            Self::Store => "storing blobs",
            Self::Export => "checking and writing",
        }
    }
}

/// Receives the progress of a build. Called from one thread.
pub trait Progress {
    /// A step began; `total` bytes will be reported, if that is known.
    fn begin(&self, step: Step, total: Option<u64>);

    /// `bytes` more are done.
    fn advance(&self, bytes: u64);

    /// The step is over.
    fn end(&self);
}

/// Shows nothing.
#[derive(Debug, Clone, Copy, Default)]
pub struct Silent;

impl Progress for Silent {
    fn begin(&self, _: Step, _: Option<u64>) {}
    fn advance(&self, _: u64) {}
    fn end(&self) {}
}
