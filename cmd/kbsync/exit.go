package main

import (
	"context"
	"errors"
	"net"
	"net/url"
	"slices"

	"github.com/kbsync/kbsync/ingest"
	"github.com/kbsync/kbsync/internal/config"
	"github.com/kbsync/kbsync/replycx"
	"github.com/kbsync/kbsync/state"
	"github.com/kbsync/kbsync/tracker"
	"github.com/kbsync/kbsync/watcher"
)

// The exit codes. They are an interface: scripts decide on them.
const (
	exitDone        = 0
	exitOther       = 1
	exitUsage       = 2   // the command line or the config
	exitNoRoot      = 3   // a root is not there
	exitTemporary   = 5   // something is left that another run may do
	exitFailed      = 6   // documents failed for good
	exitFatal       = 7   // the token or the knowledge base is refused
	exitBudget      = 8   // --max-transfer or --max-duration is used up
	exitTraining    = 10  // the deadline passed while training
	exitGuard       = 11  // a guard halted the sync
	exitInterrupted = 130 // by a signal
)

// graver returns the more serious of two exit codes, for a run in which several apply: first what kept the run from doing
// its work, then what needs a person, then what another run does by itself.
func graver(a, b int) int {
	gravest := []int{
		exitInterrupted, exitUsage, exitFatal, exitGuard, exitNoRoot, exitOther, exitFailed, exitTraining, exitBudget, exitTemporary, exitDone,
	}
	if slices.Index(gravest, b) < slices.Index(gravest, a) {
		return b
	}
	return a
}

// An exitError is an error with its exit code. Without an error below it nothing is printed: the command has said it all.
type exitError struct {
	code int
	err  error
}

func (e *exitError) Error() string {
	if e.err == nil {
		return ""
	}
	return e.err.Error()
}

func (e *exitError) Unwrap() error { return e.err }

func usageError(text string) error { return &exitError{exitUsage, errors.New(text)} }

// exitCode maps an error to its exit code.
func exitCode(err error) int {
	if err == nil {
		return exitDone
	}
	if e, ok := errors.AsType[*exitError](err); ok {
		return e.code
	}
	for _, row := range []struct {
		code int
		is   func(error) bool
	}{
		{exitUsage, is[config.Errors]},
		{exitUsage, is[*watcher.PatternError]},
		{exitUsage, isOneOf(replycx.ErrNoToken, errNoToken)},
		{exitGuard, is[*state.DestinationError]},
		{exitGuard, is[*watcher.GuardError]},
		{exitGuard, is[*haltError]},
		{exitNoRoot, isOneOf(watcher.ErrRootMissing)},
		{exitTemporary, is[*watcher.UnavailableError]},
		{exitFatal, is[*ingest.FatalError]},
		{exitFatal, is[*tracker.FatalError]},
		{exitBudget, is[*ingest.BudgetError]},
		{exitBudget, isOneOf(errMaxDuration)},
		{exitInterrupted, isOneOf(ingest.ErrStopped, context.Canceled)},
		{exitTemporary, is[*ingest.OutageError]},
		{exitTemporary, is[*ingest.QuotaError]},
		{exitTemporary, is[*tracker.OutageError]},
		{exitTemporary, isOneOf(state.ErrLocked, watcher.ErrRootChanged)},
		{exitFatal, refusedForGood},
		{exitTemporary, is[*replycx.Error]},
		{exitTemporary, is[*replycx.AnswerError]},
		{exitTemporary, is[*net.OpError]},
		{exitTemporary, is[*url.Error]},
	} {
		if row.is(err) {
			return row.code
		}
	}
	return exitOther
}

func is[E error](err error) bool {
	_, ok := errors.AsType[E](err)
	return ok
}

func isOneOf(targets ...error) func(error) bool {
	return func(err error) bool {
		return slices.ContainsFunc(targets, func(t error) bool { return errors.Is(err, t) })
	}
}

// refusedForGood tells whether the API refuses the token, the account or the knowledge base: whatever is tried next is
// refused as well.
func refusedForGood(err error) bool {
	e, ok := errors.AsType[*replycx.Error](err)
	if !ok {
		return false
	}
	switch {
	case e.StatusCode >= 300 && e.StatusCode < 400:
		return true
	case e.StatusCode == 408 || e.StatusCode == 425 || e.StatusCode == 429:
		return false
	}
	return e.StatusCode >= 400 && e.StatusCode < 500
}
