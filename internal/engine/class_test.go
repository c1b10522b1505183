package engine

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"syscall"
	"testing"

	"github.com/kbsync/kbsync/ingest"
	"github.com/kbsync/kbsync/internal/config"
	"github.com/kbsync/kbsync/replycx"
	"github.com/kbsync/kbsync/state"
	"github.com/kbsync/kbsync/tracker"
	"github.com/kbsync/kbsync/watcher"
)

func TestClassify(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		err  error
		want Class
	}{
		{nil, ClassNone},
		{errors.New("anything"), ClassOther},
		{config.Errors{{Text: "wrong"}}, ClassUsage},
		{WithClass(ClassUsage, context.Canceled), ClassUsage},
		{replycx.ErrNoToken, ClassUsage},
		{&watcher.PatternError{}, ClassUsage},
		{&watcher.RuleFileError{Err: errors.New("not UTF-8")}, ClassUsage},
		{fmt.Errorf("%w: /docs", watcher.ErrRootMissing), ClassRootMissing},
		{&watcher.UnavailableError{Err: errors.New("no route")}, ClassTemporary},
		{state.ErrLocked, ClassTemporary},
		{state.ErrLeaseLost, ClassTemporary},
		{state.ErrUnavailable, ClassTemporary},
		{state.ErrNoAccess, ClassUsage},
		{watcher.ErrRootChanged, ClassTemporary},
		{&ingest.OutageError{Err: errors.New("500")}, ClassTemporary},
		{&ingest.QuotaError{Err: errors.New("400")}, ClassTemporary},
		{&tracker.OutageError{Err: errors.New("500")}, ClassTemporary},
		{&replycx.Error{StatusCode: 503}, ClassTemporary},
		{&replycx.Error{StatusCode: 429}, ClassTemporary},
		{&replycx.AnswerError{}, ClassTemporary},
		{&net.OpError{Op: "dial", Err: errors.New("refused")}, ClassTemporary},
		{&os.PathError{Op: "open", Path: "x", Err: syscall.EIO}, ClassOther},
		{&ingest.FatalError{Err: &replycx.Error{StatusCode: 401}}, ClassFatal},
		{&tracker.FatalError{Err: &replycx.Error{StatusCode: 401}}, ClassFatal},
		{&replycx.Error{StatusCode: 401}, ClassFatal},
		{&replycx.Error{StatusCode: 400}, ClassFatal},
		{&replycx.Error{StatusCode: 404}, ClassFatal},
		{&replycx.Error{StatusCode: 414}, ClassFatal},
		{&replycx.Error{StatusCode: 302}, ClassFatal},
		{&ingest.BudgetError{Limit: "max-transfer"}, ClassBudget},
		{ErrMaxDuration, ClassBudget},
		{&state.DestinationError{}, ClassGuard},
		{&watcher.GuardError{}, ClassGuard},
		{&haltError{}, ClassGuard},
		{state.ErrMoved, ClassGuard},
		{state.ErrLockLost, ClassGuard},
		{ingest.ErrStopped, ClassInterrupted},
		{context.Canceled, ClassInterrupted},
		{JoinErrors([]error{state.ErrLocked, &watcher.GuardError{}, ErrMaxDuration}), ClassGuard},
	} {
		if got := Classify(c.err); got != c.want {
			t.Errorf("Classify(%T %v) = %v, want %v", c.err, c.err, got, c.want)
		}
		if c.err == nil {
			continue
		}
		if got := Classify(fmt.Errorf("wrapped: %w", c.err)); got != c.want {
			t.Errorf("Classify of wrapped %T = %v, want %v", c.err, got, c.want)
		}
	}
}

func TestWorseFollowsTheOrderOfClasses(t *testing.T) {
	t.Parallel()
	classes := []Class{
		ClassNone, ClassTemporary, ClassBudget, ClassTrainingDeadline, ClassDocumentsFailed, ClassOther, ClassRootMissing,
		ClassGuard, ClassFatal, ClassUsage, ClassInterrupted,
	}
	names := map[string]bool{}
	for i, a := range classes {
		names[a.String()] = true
		for j, b := range classes {
			if got, want := Worse(a, b), classes[max(i, j)]; got != want {
				t.Errorf("Worse(%v, %v) = %v, want %v", a, b, got, want)
			}
		}
	}
	if len(names) != len(classes) || names["unknown"] {
		t.Errorf("the names are %v", names)
	}
}

func TestJoinErrorsOfNoneIsNil(t *testing.T) {
	t.Parallel()
	if err := JoinErrors([]error{nil, nil}); err != nil {
		t.Errorf("got %v", err)
	}
}
