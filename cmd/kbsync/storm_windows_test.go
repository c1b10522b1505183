package main

import "os"

func hangUp(*os.Process) error { return nil }
