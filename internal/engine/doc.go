// Package engine keeps the knowledge bases of syncs true to their roots. It wires the stages (watcher, ingest, tracker) to the
// state and decides when each of them runs. It knows no command line and no exit code: it gets a config, a logger, a clock and
// contexts, and its errors have a Class.
//
// A worker works on one sync: it takes the lock, enters the sync and its destination into the state, recovers the work of an
// earlier process, applies the guards, scans and uploads. Two drivers use it. RunOnce makes one pass over each sync and waits
// for the training; RunDaemon runs the loops of each sync until its context ends.
//
//   - engine.go has the options of both drivers; class.go the classes of errors; remaining.go the errors for unfinished documents.
//   - worker.go opens a sync: lock, destination, recovery. guard.go halts uploads; estimate.go counts them beforehand.
//   - root.go opens a root; options.go turns a config into the options of the stages.
//   - client.go logs the documents of requests. trackers.go is the pool of trackers, one for each destination.
//   - run.go and pass.go are the driver of one pass; notify.go reports to hooks and status files for both drivers.
//   - daemon.go supervises the loops of all syncs; reload.go takes a new config; page.go serves the page and its triggers;
//     health.go sums up and dumps the status; training.go restarts trackers; service.go talks to systemd.
//   - loops.go starts the loops of one sync: scan.go with schedule.go and changes.go, upload.go, report.go. liveness.go and
//     wakeup.go are their signs of life and signals.
package engine
