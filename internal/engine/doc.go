// Package engine keeps the knowledge bases of syncs true to their roots. It wires the stages (watcher, ingest, tracker) to the
// state and decides when each of them runs.
package engine
