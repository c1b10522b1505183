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

// Unwrap returns the error below.
func (e *exitError) Unwrap() error { return e.err }

// Class returns the class that has this exit code.
func (e *exitError) Class() engine.Class {
	for class, code := range exitCodes() {
		if code == e.code {
			return class
		}
	}
	return engine.ClassOther
}

func usageError(text string) error { return &exitError{exitUsage, errors.New(text)} }

func is[E error](err error) bool {
	_, ok := errors.AsType[E](err)
	return ok
}

func isOneOf(targets ...error) func(error) bool {
	return func(err error) bool {
		return slices.ContainsFunc(targets, func(t error) bool { return errors.Is(err, t) })
	}
}
