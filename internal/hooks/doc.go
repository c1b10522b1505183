// Package hooks reports how syncs stand to other programs: it calls the hooks of a sync, requests its heartbeat, and writes
// the status files of the process.
//
// A notification is a row of the state's outbox before it is delivered, so a hook gets each one at least once, whenever the
// process ends. A Notifier enqueues the news of a sync and delivers the messages that are due; the holder of the sync's lock uses it.
//
//   - notifier.go finds the news and puts it into the outbox.
//   - message.go is the JSON body of a notification.
//   - deliver.go takes notifications out of the outbox and calls commands and webhooks.
//   - heartbeat.go requests the heartbeat.
//   - statusfiles.go writes the touch file, the error file and the metrics file.
package hooks
