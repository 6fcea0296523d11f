//! What goes wrong with messages, files, buckets and queues, and what is said of it.

use std::time::Duration;

use aws_sdk_sqs::types::QueueAttributeName;
use ecr_audit::source::{Reason, SourceKind};
use serde_json::json;

use crate::proxy;
use crate::support::records::ago;
use crate::support::{Answer, eventually};
use crate::world::{LIMIT, Reading, World, expect_pulls, gzip, key, notification, pull, unique};

pub async fn what_nobody_can_read_is_left_to_the_queue_and_named() {
    let mut world = World::without_bucket().await;
    let dead = world.create_queue(&unique("dead"), &[]).await;
    let arn = world.attribute(&dead, QueueAttributeName::QueueArn).await;
    let redrive = json!({"deadLetterTargetArn": arn, "maxReceiveCount": 2}).to_string();
    let name = unique("redriven");
    world.queue = world
        .create_queue(&name, &[(QueueAttributeName::RedrivePolicy, redrive)])
        .await;
    world.create_bucket().await;
    let reading = Reading::start(&world).await;
    world.file(ago(900), &[pull(1000)]).await;
    expect_pulls(&reading.ledger, 1).await;

    let broken = key(ago(300));
    world
        .put(&broken, b"<html>not a trail's file</html>".to_vec())
        .await;
    let cut = key(ago(240));
    let mut half = gzip(&json!({"Records": vec![pull(400); 50]}).to_string());
    half.truncate(half.len() / 2);
    world.put(&cut, half).await;
    world
        .send_all(&["no JSON".to_owned(), "{}".to_owned()])
        .await;
    let confirm = json!({"Type": "SubscriptionConfirmation", "Message": "You have chosen",
        "SubscribeURL": "http://127.0.0.1:1/"});
    world.send(&confirm).await;

    let message = reading.fails(Reason::MessageUnreadable).await;
    assert!(message.starts_with("message "), "{message}");
    let message = reading.misses(Reason::FileUnreadable).await;
    assert!(message.contains(&world.bucket), "{message}");
    reading.misses(Reason::MessageUnreadable).await;
    // Both files, both messages that say nothing; the confirmation is no gap.
    eventually("all gaps", LIMIT, async || {
        let gaps = reading.place().unwrap().gaps.clone();
        if gaps.len() == 4 {
            Ok(())
        } else {
            Err(format!("{gaps:#?}"))
        }
    })
    .await;
    // The redrive policy puts them aside.
    eventually("the dead letters", LIMIT, async || {
        let count = world
            .attribute(&dead, QueueAttributeName::ApproximateNumberOfMessages)
            .await;
        if count == "5" { Ok(()) } else { Err(count) }
    })
    .await;
    world.emptied().await;
    let counters = reading.pollers.counters();
    let messages = counters.messages();
    assert_eq!(messages["NotJson"], 2, "{messages:?}");
    assert_eq!(messages["Unknown"], 2, "{messages:?}");
    assert_eq!(messages["Subscription"], 2, "{messages:?}");
    assert_eq!(messages["FileUnreadable"], 4, "{messages:?}");

    // A file that is put right, and told of again, is a gap no more.
    world
        .put(&broken, gzip(&json!({"Records": [pull(500)]}).to_string()))
        .await;
    eventually("one gap less", LIMIT, async || {
        let gaps = reading.place().unwrap().gaps.clone();
        if gaps.len() == 3 {
            Ok(())
        } else {
            Err(format!("{gaps:#?}"))
        }
    })
    .await;
    // Good files were read all the time.
    world.file(ago(120), &[pull(200)]).await;
    eventually("the good file", LIMIT, async || {
        let tally = reading.pollers.counters().objects()[&SourceKind::Sqs];
        if tally.read == 3 {
            Ok(())
        } else {
            Err(format!("{tally:?}"))
        }
    })
    .await;
    reading.pollers.stop().await;
}

pub async fn a_file_that_is_gone_is_a_gap_and_no_endless_try() {
    let world = World::new().await;
    let gone = key(ago(300));
    world.send(&notification(&world.bucket, &gone)).await;
    let reading = Reading::start(&world).await;
    let message = reading.misses(Reason::FileMissing).await;
    assert!(message.contains(&gone[gone.len() - 20..]), "{message}");
    world.emptied().await;
    assert_eq!(proxy().await.asked(GET).len(), 1);
    reading.works().await;
    reading.pollers.stop().await;
}

pub async fn a_bucket_that_is_missing_is_told_and_holds_its_messages() {
    let world = World::without_bucket().await;
    let key = key(ago(300));
    world.send(&notification(&world.bucket, &key)).await;
    let reading = Reading::start(&world).await;
    reading.fails(Reason::BucketMissing).await;
    // Longer than the message is hidden at a time: it is held.
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(world.messages().await, (0, 1));
    world.create_bucket().await;
    world
        .put(&key, gzip(&json!({"Records": [pull(600)]}).to_string()))
        .await;
    reading.works().await;
    expect_pulls(&reading.ledger, 1).await;
    world.emptied().await;
    reading.pollers.stop().await;
}

pub async fn a_queue_that_is_missing_is_told_and_read_when_it_is_there() {
    let mut world = World::without_bucket().await;
    world
        .sqs
        .delete_queue()
        .queue_url(&world.queue)
        .send()
        .await
        .unwrap();
    let reading = Reading::start(&world).await;
    reading.fails(Reason::QueueMissing).await;
    world.queue = world.create_queue(&unique("trail"), &[]).await;
    reading.works().await;
    world.create_bucket().await;
    world.file(ago(300), &[pull(600)]).await;
    expect_pulls(&reading.ledger, 1).await;
    // And while it is read.
    world
        .sqs
        .delete_queue()
        .queue_url(&world.queue)
        .send()
        .await
        .unwrap();
    reading.fails(Reason::QueueMissing).await;
    reading.pollers.stop().await;
}

/// What the operator asks S3 for an object with.
const GET: &str = "x-id=GetObject";

pub async fn a_slow_file_is_read_once_though_it_takes_longer_than_the_visibility_timeout() {
    let world = World::new().await;
    proxy()
        .await
        .fail(GET, Answer::Slow(Duration::from_secs(8)));
    world.file(ago(300), &[pull(600)]).await;
    let reading = Reading::start(&world).await;
    expect_pulls(&reading.ledger, 1).await;
    world.emptied().await;
    let tally = reading.pollers.counters().objects()[&SourceKind::Sqs];
    assert_eq!((tally.read, tally.known), (1, 0), "{tally:?}");
    assert_eq!(proxy().await.asked(GET).len(), 1);
    reading.pollers.stop().await;
}

/// Each fault is told, in words that name it, and is over when it is over. Meanwhile files come.
async fn told_and_over(faults: &[(&str, Answer, &[Reason])]) {
    let (world, proxy) = (World::new().await, proxy().await);
    let reading = Reading::start(&world).await;
    let mut files = 0;
    let file = async |number: u64| {
        let seconds = 300 + i64::try_from(number).unwrap();
        world.file(ago(seconds), &[pull(300 + seconds)]).await;
        number + 1
    };
    for (of, answer, reasons) in faults {
        proxy.fail(of, answer.clone());
        files = file(files).await;
        let what = format!("{of} {answer:?}");
        let message = eventually(&what, LIMIT, async || match &reading.whole().last_error {
            Some(error) if reasons.contains(&error.reason) => Ok(error.message.clone()),
            other => Err(format!("{other:?}")),
        })
        .await;
        if let Answer::Xml(_, code, _) | Answer::Json(_, code, ..) = answer {
            assert!(message.contains(code), "{message}");
        }
        assert!(proxy.heal() > 0);
        // The queue is waited for as long as nothing is in it.
        files = file(files).await;
        reading.works().await;
        expect_pulls(&reading.ledger, files).await;
    }
    world.emptied().await;
    let tally = reading.pollers.counters().objects()[&SourceKind::Sqs];
    // A message that could not be deleted comes again: what it brings is known, or read again.
    assert!(tally.read >= files, "{tally:?}");
    assert!(reading.place().unwrap().gaps.is_empty());
    reading.pollers.stop().await;
}

pub async fn faults_of_the_bucket_are_told_and_cost_nothing() {
    let role = "User: arn:aws:sts::111122223333:assumed-role/audit/x is not authorized to perform";
    let key = format!("{role}: kms:Decrypt on the resource associated with this ciphertext");
    let key: &'static str = key.leak();
    told_and_over(&[
        (GET, Answer::Xml(503, "SlowDown", "Please reduce your request rate."), &[Reason::Throttled]),
        (GET, Answer::Xml(500, "InternalError", "We encountered an internal error."), &[Reason::ServerError]),
        (GET, Answer::Xml(403, "AccessDenied", role), &[Reason::AccessDenied]),
        (GET, Answer::Xml(403, "AccessDenied", key), &[Reason::KeyDenied]),
        (GET, Answer::Xml(400, "KMS.DisabledException", "the key is disabled."), &[Reason::KeyDenied]),
        (GET, Answer::Xml(400, "ExpiredToken", "The provided token has expired."), &[Reason::ExpiredToken]),
        (GET, Answer::Xml(403, "RequestTimeTooSkewed", "The difference between the request time and the current time is too large."), &[Reason::ClockSkewed]),
        (GET, Answer::Xml(404, "NoSuchBucket", "The specified bucket does not exist"), &[Reason::BucketMissing]),
        (GET, Answer::Xml(301, "PermanentRedirect", "The bucket you are attempting to access must be addressed using the specified endpoint."), &[Reason::WrongRegion]),
        (GET, Answer::Reset, &[Reason::Connection]),
        (GET, Answer::Cut(20), &[Reason::Truncated, Reason::Connection]),
    ])
    .await;
}

pub async fn faults_of_the_queue_are_told_and_cost_nothing() {
    let (receive, delete) = ("AmazonSQS.ReceiveMessage", "AmazonSQS.DeleteMessageBatch");
    let denied = Answer::Json(
        403,
        "AccessDenied",
        "com.amazon.coral.service#AccessDeniedException",
        "User: arn:aws:sts::111122223333:assumed-role/audit/x is not authorized to perform this",
    );
    let of = |status, code, kind| Answer::Json(status, code, kind, "it is refused");
    told_and_over(&[
        (receive, denied.clone(), &[Reason::AccessDenied]),
        (delete, denied.clone(), &[Reason::AccessDenied]),
        ("AmazonSQS.GetQueueAttributes", denied, &[Reason::AccessDenied]),
        (receive, of(400, "KMS.AccessDeniedException", "com.amazonaws.sqs#KmsAccessDenied"), &[Reason::KeyDenied]),
        (receive, of(400, "KMS.ThrottlingException", "com.amazonaws.sqs#KmsThrottled"), &[Reason::Throttled]),
        (receive, of(400, "RequestThrottled", "com.amazonaws.sqs#RequestThrottled"), &[Reason::Throttled]),
        (delete, of(400, "ThrottlingException", "com.amazon.coral.availability#ThrottlingException"), &[Reason::Throttled]),
        (receive, of(403, "ExpiredToken", "com.amazon.coral.service#ExpiredTokenException"), &[Reason::ExpiredToken]),
        (receive, Answer::Json(403, "InvalidSignatureException", "com.amazon.coral.service#InvalidSignatureException",
            "Signature expired: 20261122T100000Z is now earlier than 20261122T101500Z (20261122T102000Z - 5 min.)"), &[Reason::ClockSkewed]),
        (receive, of(400, "AWS.SimpleQueueService.NonExistentQueue", "com.amazonaws.sqs#QueueDoesNotExist"), &[Reason::QueueMissing]),
        (receive, of(503, "ServiceUnavailable", "com.amazonaws.sqs#ServiceUnavailable"), &[Reason::ServerError]),
        (delete, Answer::Reset, &[Reason::Connection]),
        (receive, Answer::Cut(20), &[Reason::Truncated, Reason::Connection, Reason::Malformed]),
    ])
    .await;
}

pub async fn messages_that_cannot_be_hidden_are_told_and_count_once() {
    let (world, proxy) = (World::new().await, proxy().await);
    let reading = Reading::start(&world).await;
    let hide = "AmazonSQS.ChangeMessageVisibilityBatch";
    let slow = || proxy.fail(GET, Answer::Slow(Duration::from_secs(5)));
    slow();
    proxy.fail(
        hide,
        Answer::Json(
            403,
            "AccessDenied",
            "com.amazon.coral.service#AccessDeniedException",
            "not authorized to perform: sqs:changemessagevisibility",
        ),
    );
    world.file(ago(300), &[pull(600)]).await;
    let message = reading.fails(Reason::AccessDenied).await;
    assert!(message.contains("changemessagevisibility"), "{message}");
    expect_pulls(&reading.ledger, 1).await;
    proxy.heal();
    slow();
    world.file(ago(240), &[pull(500)]).await;
    reading.works().await;
    expect_pulls(&reading.ledger, 2).await;
    proxy.heal();
    world.emptied().await;
    reading.pollers.stop().await;
}
