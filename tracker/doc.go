// Package tracker follows the sources that uploads created until their training completes or fails.
//
// ReplyCX answers questions from a source only after its training. The tracker asks for the status of the due sources, many
// in one request, and records each answer in the state, which holds the schedule. A restarted run continues where the last
// one ended.
//
// The tracker does not know documents: the state decides how a source's outcome changes them. Use package replycx to ask for
// a status once.
package tracker
