package pgtest

import "syscall"

// endWithParent stops a server when the process of the tests is killed.
func endWithParent(attr *syscall.SysProcAttr) { attr.Pdeathsig = syscall.SIGQUIT }
