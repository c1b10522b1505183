// Package defects plants defects in the code of kbsync, one at a time, and checks that a test finds each. It has only tests:
// make defects runs them.
package defects
