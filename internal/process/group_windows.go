package process

import "os/exec"

// killGroup does nothing, because Windows has no process groups. The command alone is killed.
func killGroup(*exec.Cmd) {}
