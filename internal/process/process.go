// Package process runs the commands of a config, such as hooks: the end of their context also ends what they have started.
package process

import (
	"context"
	"errors"
	"os/exec"
	"time"
)

// drain is how long Run waits for the output of a command that has ended: a process that it left behind may keep its streams open.
const drain = time.Second

// Command returns a command with its arguments. When ctx ends, the command is killed with all processes that it has started and that have not left
// its process group; on Windows the command alone.
func Command(ctx context.Context, args []string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, args[0], args[1:]...)
	killGroup(cmd)
	cmd.WaitDelay = drain
	return cmd
}

// Run runs a command. A command that succeeds and leaves a process behind, which keeps its output open, has succeeded.
func Run(cmd *exec.Cmd) error {
	err := cmd.Run()
	if errors.Is(err, exec.ErrWaitDelay) && cmd.ProcessState.Success() {
		return nil
	}
	return err
}
