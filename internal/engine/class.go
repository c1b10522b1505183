package engine

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

// A Class is the meaning of an error for the person or the program that started the work. Programs decide on the class of an
// error, never on its text.
type Class uint8

// The classes, from the least serious to the most serious. The order is that of [Worse]: a cause that kept a run from its
// work precedes one that needs a person, which precedes one that the next run removes by itself.
const (
	ClassNone             Class = iota // no error
	ClassTemporary                     // something is left that another run may do
	ClassBudget                        // a limit of the run is used up: its bytes or its time
	ClassTrainingDeadline              // documents are in training past their deadline
	ClassDocumentsFailed               // documents failed for good
	ClassOther                         // any error without a class of its own
	ClassRootMissing                   // a root does not exist
	ClassGuard                         // a guard halted the sync
	ClassFatal                         // the API refuses the token, the account or the knowledge base
	ClassUsage                         // the command line or the config is wrong
	ClassInterrupted                   // a signal ended the work
)

// String returns the name of the class. The state keeps it in the outbox, so a name never changes.
func (c Class) String() string {
	names := [...]string{
		ClassNone:             "none",
		ClassTemporary:        "temporary",
		ClassBudget:           "budget",
		ClassTrainingDeadline: "training deadline",
		ClassDocumentsFailed:  "documents failed",
		ClassOther:            "other",
		ClassRootMissing:      "root missing",
		ClassGuard:            "guard",
		ClassFatal:            "fatal",
		ClassUsage:            "usage",
		ClassInterrupted:      "interrupted",
	}
	if int(c) < len(names) {
		return names[c]
	}
	return "unknown"
}

// NeedsPerson reports whether the cause goes away only when a person acts, and not with time.
func (c Class) NeedsPerson() bool {
	return c == ClassFatal || c == ClassGuard || c == ClassUsage
}

// Worse returns the more serious of two classes, when both apply to a run.
func Worse(a, b Class) Class { return max(a, b) }

// A ClassError is an error whose class was decided where it was made. WithClass makes it.
type ClassError struct {
	class Class
	err   error
}

// WithClass returns err with a class that [Classify] finds before any other. The text stays that of err.
func WithClass(class Class, err error) error { return &ClassError{class, err} }

func (e *ClassError) Error() string { return e.err.Error() }

// Unwrap returns the error without the class.
func (e *ClassError) Unwrap() error { return e.err }

// Class returns the class.
func (e *ClassError) Class() Class { return e.class }

// ErrMaxDuration is the cause of a context that ended because a run reached its time limit.
var ErrMaxDuration = errors.New("the limit of --max-duration is reached; run again to go on")

// A haltError is a guard's refusal of the uploads that a scan has planned.
type haltError struct{ guard, text string }

func (e *haltError) Error() string { return e.text }

// Classify returns the class of an error: that of [WithClass] or of another error with a method Class, else that of the first
// row of a table that matches.
func Classify(err error) Class {
	if err == nil {
		return ClassNone
	}
	if e, ok := errors.AsType[interface {
		error
		Class() Class
	}](err); ok {
		return e.Class()
	}
	for _, row := range []struct {
		class   Class
		matches func(error) bool
	}{
		{ClassUsage, is[config.Errors]},
		{ClassUsage, is[*watcher.PatternError]},
		{ClassUsage, is[*watcher.RuleFileError]},
		{ClassUsage, isOneOf(replycx.ErrNoToken, state.ErrNoAccess)},
		{ClassGuard, is[*state.DestinationError]},
		{ClassGuard, is[*watcher.GuardError]},
		{ClassGuard, is[*haltError]},
		{ClassGuard, isOneOf(state.ErrMoved, state.ErrLockLost)},
		{ClassRootMissing, isOneOf(watcher.ErrRootMissing)},
		{ClassTemporary, is[*watcher.UnavailableError]},
		{ClassFatal, is[*ingest.FatalError]},
		{ClassFatal, is[*tracker.FatalError]},
		{ClassBudget, is[*ingest.BudgetError]},
		{ClassBudget, isOneOf(ErrMaxDuration)},
		{ClassInterrupted, isOneOf(ingest.ErrStopped, context.Canceled)},
		{ClassTemporary, is[*ingest.OutageError]},
		{ClassTemporary, is[*ingest.QuotaError]},
		{ClassTemporary, is[*tracker.OutageError]},
		{ClassTemporary, isOneOf(state.ErrLocked, state.ErrLeaseLost, state.ErrUnavailable, watcher.ErrRootChanged)},
		{ClassFatal, refused},
		{ClassTemporary, is[*replycx.Error]},
		{ClassTemporary, is[*replycx.AnswerError]},
		{ClassTemporary, is[*net.OpError]},
		{ClassTemporary, is[*url.Error]},
	} {
		if row.matches(err) {
			return row.class
		}
	}
	return ClassOther
}

// JoinErrors joins errors into one with the most serious of their classes. It returns nil if there is none.
func JoinErrors(errs []error) error {
	joined := errors.Join(errs...)
	if joined == nil {
		return nil
	}
	class := ClassNone
	for _, err := range errs {
		class = Worse(class, Classify(err))
	}
	return WithClass(class, joined)
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

// refused reports whether the API refuses the request itself: the same request is refused again.
func refused(err error) bool {
	e, ok := errors.AsType[*replycx.Error](err)
	if !ok {
		return false
	}
	switch e.Class() {
	case replycx.ClassDenied, replycx.ClassRejected, replycx.ClassTooLong, replycx.ClassNotFound:
		return true
	}
	return false
}
