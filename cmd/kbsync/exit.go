package main

import (
	"errors"
	"slices"

	"github.com/kbsync/kbsync/internal/engine"
)

// The exit codes. They are an interface: scripts decide on them.
const (
	exitDone        = 0
	exitOther       = 1
	exitUsage       = 2   // the command line or the config is wrong
	exitNoRoot      = 3   // a root does not exist
	exitTemporary   = 5   // something is left that another run may do
	exitFailed      = 6   // documents failed for good
	exitFatal       = 7   // the API refuses the token or the knowledge base
	exitBudget      = 8   // --max-transfer or --max-duration is used up
	exitTraining    = 10  // the deadline passed while training
	exitGuard       = 11  // a guard halted the sync
	exitInterrupted = 130 // by a signal
)

// exitCodes is the one table from the class of an error to the exit code.
func exitCodes() map[engine.Class]int {
	return map[engine.Class]int{
		engine.ClassNone:             exitDone,
		engine.ClassOther:            exitOther,
		engine.ClassUsage:            exitUsage,
		engine.ClassRootMissing:      exitNoRoot,
		engine.ClassTemporary:        exitTemporary,
		engine.ClassDocumentsFailed:  exitFailed,
		engine.ClassFatal:            exitFatal,
		engine.ClassBudget:           exitBudget,
		engine.ClassTrainingDeadline: exitTraining,
		engine.ClassGuard:            exitGuard,
		engine.ClassInterrupted:      exitInterrupted,
	}
}

// codeOf returns the exit code of a class.
func codeOf(class engine.Class) int { return exitCodes()[class] }

// exitCode returns the exit code of an error.
func exitCode(err error) int { return codeOf(engine.Classify(err)) }

func usageError(text string) error { return engine.WithClass(engine.ClassUsage, errors.New(text)) }

func is[E error](err error) bool {
	_, ok := errors.AsType[E](err)
	return ok
}

func isOneOf(targets ...error) func(error) bool {
	return func(err error) bool {
		return slices.ContainsFunc(targets, func(t error) bool { return errors.Is(err, t) })
	}
}
