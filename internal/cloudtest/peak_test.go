package cloudtest

import (
	"fmt"
	"os"
	"os/exec"
	"strings"
	"time"
)

// runMeasured runs a command and returns its peak resident memory in bytes.
func runMeasured(cmd *exec.Cmd) (peak int64, err error) {
	if err := cmd.Start(); err != nil {
		return 0, err
	}
	ended, peaks := make(chan struct{}), make(chan int64)
	go func() { peaks <- peakOf(cmd.Process.Pid, ended) }()
	err = cmd.Wait()
	close(ended)
	return <-peaks, err
}

// peakOf returns the peak resident memory of a running process in bytes; 0 if the system does not report it. The value that systems
// report after the end of a process includes memory of its parent.
func peakOf(pid int, ended <-chan struct{}) (peak int64) {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-ended:
			return peak
		case <-tick.C:
		}
		data, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
		if err != nil {
			continue
		}
		var kib int64
		if _, after, ok := strings.Cut(string(data), "VmHWM:"); ok {
			if _, err := fmt.Sscan(after, &kib); err == nil {
				peak = max(peak, kib<<10)
			}
		}
	}
}
