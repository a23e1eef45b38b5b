//! What the store says about the server it is pointed at.

use crate::support::redis::RedisServer;

#[tokio::test]
async fn a_killed_server_comes_back_on_the_same_address() {
    let server = RedisServer::start();
    let mut raw = server.raw().await;
    assert_eq!(redis::cmd("PING").query_async::<String>(&mut raw).await.unwrap(), "PONG");
    server.kill();
    assert!(redis::cmd("PING").query_async::<String>(&mut raw).await.is_err());
    server.restart();
    let mut raw = server.raw().await;
    assert_eq!(redis::cmd("PING").query_async::<String>(&mut raw).await.unwrap(), "PONG");
}
