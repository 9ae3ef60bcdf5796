//! Writes the code of the public gRPC schema, when the feature `grpc` asks for it.

use std::error::Error;

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=build.rs");
    #[cfg(feature = "grpc")]
    schema::compile()?;
    Ok(())
}

#[cfg(feature = "grpc")]
mod schema {
    use std::error::Error;
    use std::path::{Path, PathBuf};
    use std::{env, fs};

    use protox::prost::Message;
    use tonic_prost_build::FileDescriptorSet;

    /// Where the schema lies, seen from this crate.
    const ROOT: &str = "../../proto";
    /// The files of the schema, below its root.
    const FILES: &[&str] = &["clusterkit/cluster/v1/cluster.proto"];

    /// Compiles the schema without any tool but this build, and without a network.
    pub(crate) fn compile() -> Result<(), Box<dyn Error>> {
        for file in FILES {
            println!("cargo::rerun-if-changed={ROOT}/{file}");
        }
        let out_dir = PathBuf::from(env::var_os("OUT_DIR").ok_or("cargo sets OUT_DIR")?);
        let descriptors = protox::compile(FILES, [ROOT])?;
        describe(&descriptors, &out_dir.join("clusterkit.bin"))?;
        tonic_prost_build::configure().btree_map(".").bytes(".").compile_fds(descriptors)?;
        Ok(())
    }

    /// Writes the schema as `FILE_DESCRIPTOR_SET` gives it out: without comments and lines.
    fn describe(descriptors: &FileDescriptorSet, file: &Path) -> Result<(), Box<dyn Error>> {
        let mut bare = descriptors.clone();
        for file in &mut bare.file {
            file.source_code_info = None;
        }
        fs::write(file, bare.encode_to_vec())?;
        Ok(())
    }
}
