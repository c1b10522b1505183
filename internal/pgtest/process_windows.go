package pgtest

import "os/exec"

func giveAway(string) error { return nil }

func asServerUser(*exec.Cmd) error { return nil }
