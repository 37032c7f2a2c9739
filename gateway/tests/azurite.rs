//! Blobs read, written and deleted in Azurite, which speaks as Azure Blob storage does.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use bytes::Bytes;
use portcullis::blob::container::ContainerError;
use portcullis_testing::azurite::Azurite;
use portcullis_testing::within;

#[tokio::test]
#[cfg_attr(offline, ignore = "PORTCULLIS_TEST_OFFLINE=1")]
async fn a_blob_is_written_read_replaced_and_deleted() {
    let azurite = Azurite::start().await;
    let container = azurite.blobs(&azurite.container("reg").await);
    within(container.delete("devices.txt")).await.unwrap();
    for text in ["one\ntwo\n", "three\n", ""] {
        container.put_blob("devices.txt", text).await;
        assert_eq!(container.blob("devices.txt").await.unwrap(), text.as_bytes());
    }
    container.put_blob("2026/11/\u{fc} ?&=#.txt", "deep").await;
    assert_eq!(container.blob("2026/11/\u{fc} ?&=#.txt").await.unwrap(), b"deep");

    container.delete("devices.txt").await.unwrap();
    assert_eq!(container.blob("devices.txt").await, None);
    container.delete("devices.txt").await.unwrap();
}

#[tokio::test]
#[cfg_attr(offline, ignore = "PORTCULLIS_TEST_OFFLINE=1")]
async fn a_large_blob_goes_in_blocks_and_is_there_only_when_finished() {
    let azurite = Azurite::start().await;
    let container = azurite.blobs(&azurite.container("reg").await);
    container.put_blob("devices.txt", "the old one").await;
    // Two blocks and a half, in pieces that fit no block.
    let line: Vec<u8> = (0..=u8::MAX).cycle().take(100_003).collect();
    let mut writer = container.write("devices.txt").unwrap();
    for _ in 0..105 {
        within(writer.write(Bytes::from(line.clone()))).await.unwrap();
    }
    assert_eq!(container.blob("devices.txt").await.unwrap(), b"the old one");
    within(writer.finish()).await.unwrap();
    assert!(container.blob("devices.txt").await.unwrap() == line.repeat(105));

    let mut dropped = container.write("other.txt").unwrap();
    within(dropped.write(Bytes::from(vec![0; 5 << 20]))).await.unwrap();
    drop(dropped);
    assert_eq!(container.blob("other.txt").await, None);
}

#[tokio::test]
#[cfg_attr(offline, ignore = "PORTCULLIS_TEST_OFFLINE=1")]
async fn two_writers_of_one_blob_do_not_mix() {
    let azurite = Azurite::start().await;
    let container = azurite.blobs(&azurite.container("reg").await);
    let mut one = container.write("devices.txt").unwrap();
    let mut other = container.write("devices.txt").unwrap();
    within(one.write(Bytes::from(vec![1; 5 << 20]))).await.unwrap();
    within(other.write(Bytes::from(vec![2; 5 << 20]))).await.unwrap();
    // The store forgets the other's blocks when one list is put down, so the other fails rather than mix.
    within(one.finish()).await.unwrap();
    assert!(within(other.finish()).await.is_err());
    assert!(container.blob("devices.txt").await.unwrap() == vec![1; 5 << 20]);
}

#[tokio::test]
#[cfg_attr(offline, ignore = "PORTCULLIS_TEST_OFFLINE=1")]
async fn what_a_signature_does_not_allow_is_told_without_it() {
    let azurite = Azurite::start().await;
    let full = azurite.container("reg").await;
    azurite.blobs(&full).put_blob("devices.txt", "here").await;
    let reader = azurite.blobs(&azurite.container_uri("reg", "r"));
    assert_eq!(reader.blob("devices.txt").await.unwrap(), b"here");
    for refused in [
        reader.delete("devices.txt").await,
        reader.write("other.txt").unwrap().finish().await,
        azurite.blobs(&full.replace("sig=", "sig=AAAA")).delete("devices.txt").await,
        azurite.blobs(&azurite.container_uri("nowhere", "rwd")).delete("devices.txt").await,
    ] {
        let error = refused.unwrap_err();
        let text = format!("{error} {error:?}");
        assert!(matches!(error, ContainerError::Refused(_)), "{text}");
        assert!(!text.contains("sig=") && !text.contains("AAAA"), "{text}");
    }
}

#[tokio::test]
#[cfg_attr(offline, ignore = "PORTCULLIS_TEST_OFFLINE=1")]
async fn a_store_that_is_gone_is_unreachable() {
    let azurite = Azurite::start().await;
    let container = azurite.blobs(&azurite.container("reg").await);
    let mut writer = container.write("devices.txt").unwrap();
    within(writer.write(Bytes::from(vec![1; 5 << 20]))).await.unwrap();
    drop(azurite);
    // Whether the connection breaks or a new one is refused, it is one answer.
    assert!(matches!(within(writer.finish()).await, Err(ContainerError::Unreachable)));
    assert!(matches!(within(container.delete("devices.txt")).await, Err(ContainerError::Unreachable)));
}
