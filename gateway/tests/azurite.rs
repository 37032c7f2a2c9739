//! Blobs read, written and deleted in Azurite, which speaks as Azure Blob storage does.

use bytes::Bytes;
use futures_util::TryStreamExt;
use portcullis::blob::{BlobContainer, BlobHost, BlobHosts};
use portcullis::config::Config;
use portcullis::jobs::container::ContainerError;
use portcullis::testing::azurite::Azurite;
use portcullis::testing::within;

fn container(azurite: &Azurite, uri: &str) -> BlobContainer {
    let blob_hosts = vec![BlobHost::parse(&azurite.host()).unwrap()];
    let hosts = BlobHosts::new(&Config { blob_hosts, ..Config::default() });
    BlobContainer::parse(uri, &hosts).unwrap()
}

async fn read(container: &BlobContainer, name: &str) -> Result<Vec<u8>, ContainerError> {
    let pieces: Vec<Bytes> = within(container.read(name)).await?.try_collect().await?;
    Ok(pieces.concat())
}

async fn write(container: &BlobContainer, name: &str, bytes: &'static [u8]) -> Result<(), ContainerError> {
    let mut writer = container.write(name)?;
    writer.write(Bytes::from_static(bytes)).await?;
    within(writer.finish()).await
}

#[tokio::test]
async fn a_blob_is_written_read_replaced_and_deleted() {
    let Some(azurite) = Azurite::start().await else { return };
    let container = container(&azurite, &azurite.container("reg").await);
    within(container.delete("devices.txt")).await.unwrap();
    for text in [b"one\ntwo\n".as_slice(), b"three\n", b""] {
        write(&container, "devices.txt", text).await.unwrap();
        assert_eq!(read(&container, "devices.txt").await.unwrap(), text);
    }
    write(&container, "2026/11/\u{fc} ?&=#.txt", b"deep").await.unwrap();
    assert_eq!(read(&container, "2026/11/\u{fc} ?&=#.txt").await.unwrap(), b"deep");

    container.delete("devices.txt").await.unwrap();
    let gone = read(&container, "devices.txt").await;
    assert!(matches!(&gone, Err(ContainerError::NotFound(name)) if name == "devices.txt"), "{gone:?}");
    container.delete("devices.txt").await.unwrap();
}

#[tokio::test]
async fn a_large_blob_goes_in_blocks_and_is_there_only_when_finished() {
    let Some(azurite) = Azurite::start().await else { return };
    let container = container(&azurite, &azurite.container("reg").await);
    write(&container, "devices.txt", b"the old one").await.unwrap();
    // Two blocks and a half, in pieces that fit no block.
    let line: Vec<u8> = (0..=u8::MAX).cycle().take(100_003).collect();
    let mut writer = container.write("devices.txt").unwrap();
    for _ in 0..105 {
        within(writer.write(Bytes::from(line.clone()))).await.unwrap();
    }
    assert_eq!(read(&container, "devices.txt").await.unwrap(), b"the old one");
    within(writer.finish()).await.unwrap();
    assert!(read(&container, "devices.txt").await.unwrap() == line.repeat(105));

    let mut dropped = container.write("other.txt").unwrap();
    within(dropped.write(Bytes::from(vec![0; 5 << 20]))).await.unwrap();
    drop(dropped);
    assert!(matches!(read(&container, "other.txt").await, Err(ContainerError::NotFound(_))));
}

#[tokio::test]
async fn two_writers_of_one_blob_do_not_mix() {
    let Some(azurite) = Azurite::start().await else { return };
    let container = container(&azurite, &azurite.container("reg").await);
    let mut one = container.write("devices.txt").unwrap();
    let mut other = container.write("devices.txt").unwrap();
    within(one.write(Bytes::from(vec![1; 5 << 20]))).await.unwrap();
    within(other.write(Bytes::from(vec![2; 5 << 20]))).await.unwrap();
    // The store forgets the other's blocks when one list is put down, so the other fails rather than mix.
    within(one.finish()).await.unwrap();
    assert!(within(other.finish()).await.is_err());
    assert!(read(&container, "devices.txt").await.unwrap() == vec![1; 5 << 20]);
}

#[tokio::test]
async fn what_a_signature_does_not_allow_is_told_without_it() {
    let Some(azurite) = Azurite::start().await else { return };
    let full = azurite.container("reg").await;
    write(&container(&azurite, &full), "devices.txt", b"here").await.unwrap();
    let reader = container(&azurite, &azurite.container_uri("reg", "r"));
    assert_eq!(read(&reader, "devices.txt").await.unwrap(), b"here");
    for refused in [
        reader.delete("devices.txt").await,
        write(&reader, "other.txt", b"x").await,
        write(&container(&azurite, &full.replace("sig=", "sig=AAAA")), "other.txt", b"x").await,
        write(&container(&azurite, &azurite.container_uri("nowhere", "rwd")), "other.txt", b"x").await,
    ] {
        let error = refused.unwrap_err();
        let text = format!("{error} {error:?}");
        assert!(matches!(error, ContainerError::Refused(_)), "{text}");
        assert!(!text.contains("sig") || text.contains("signature is wrong"), "{text}");
    }
    drop(azurite);
}

#[tokio::test]
async fn a_store_that_is_gone_is_unreachable() {
    let Some(azurite) = Azurite::start().await else { return };
    let container = container(&azurite, &azurite.container("reg").await);
    let mut writer = container.write("devices.txt").unwrap();
    within(writer.write(Bytes::from(vec![1; 5 << 20]))).await.unwrap();
    drop(azurite);
    // Whether the connection breaks or a new one is refused, it is one answer.
    assert!(matches!(within(writer.finish()).await, Err(ContainerError::Unreachable)));
    assert!(matches!(within(container.delete("devices.txt")).await, Err(ContainerError::Unreachable)));
}
