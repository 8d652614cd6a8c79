// Package broadcast is the sending end: it makes revocations durable in the
// JetStream log, and tells verifiers where the log stands.
//
// The flow of one revocation:
//
//	Append ─▶ queue ─▶ committer: batch, sign, publish ─▶ JetStream: fsync, ack ─▶ the caller is answered
//	                                                         │
//	                                                         ├─▶ RePublish ─▶ verifiers
//	                                                         └─▶ follower ─▶ track, list, recent messages
//
// Invariants:
//
//   - Append returns success only after the batch that holds the revocations was
//     acknowledged by JetStream, which the embedded server does after fsync.
//   - The stream is the only state: the snapshot file saves reading it. The follower
//     takes up the file on start, and reads the stream from there, or all of it where
//     the stream doesn't confirm the file. After a lost connection, a restarted server
//     or a new stream it goes the same way.
//   - A snapshot has every entry of the log up to its position that has not expired.
//     One that may have others too, of a log that is no more, ends with its process.
//   - A heartbeat's position and chain come from the follower, never from an
//     acknowledgement: what a heartbeat claims, the log has handed out.
//   - A heartbeat's AsOf was taken before a position was fixed that the follower has
//     reached since: everything acknowledged before AsOf lies at or before the
//     heartbeat's position. With the embedded server, whose only writer this process
//     is, that position is the last one acknowledged. On an external cluster it is
//     that of a mark published after AsOf was taken, since other authorities write
//     too, and an old leader may still answer reads.
//   - A stream that lost messages or was made anew is taken up as it is, with an
//     alarm; what was in the list stays there.
package broadcast
