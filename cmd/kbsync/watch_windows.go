package main

import "os"

// dumpRequests returns a channel that never receives, because Windows has no such signal.
func dumpRequests() (dump <-chan os.Signal, end func()) { return nil, func() {} }

// isPrivate is always true: Windows decides by the permissions of the directory.
func isPrivate(os.FileInfo) bool { return true }
