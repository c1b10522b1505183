package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"time"
)

// A machine is where and when a run took place.
type machine struct {
	Date    time.Time `json:"date"`
	System  string    `json:"system"`
	CPU     string    `json:"cpu"`
	Cores   int       `json:"cores"`
	Memory  string    `json:"memory"`
	Load    string    `json:"load"` // before the run
	Go      string    `json:"go"`
	Version string    `json:"version"`
	Rclone  string    `json:"rclone"`
}

func newResults(ctx context.Context, h *harness, scale string) *results {
	m := machine{
		Date: time.Now().UTC().Truncate(time.Second), System: runtime.GOOS + "/" + runtime.GOARCH, Cores: runtime.NumCPU(), Go: runtime.Version(),
		CPU:    field("/proc/cpuinfo", "model name"),
		Memory: field("/proc/meminfo", "MemTotal"),
		Rclone: h.programs.rcloneMissing,
	}
	if load, err := os.ReadFile("/proc/loadavg"); err == nil {
		m.Load = strings.Join(strings.Fields(string(load))[:3], " ")
	}
	m.Version = output(ctx, h.programs.kbsync, "version")
	if h.programs.rclone != "" {
		m.Rclone = output(ctx, h.programs.rclone, "version")
	}
	return &results{Machine: m, Scale: scale}
}

// field returns the value of a line "name : value" of a file of the kernel.
func field(path, name string) string {
	data, _ := os.ReadFile(path) // other systems do not have it
	for line := range strings.Lines(string(data)) {
		if key, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(key) == name {
			return strings.TrimSpace(value)
		}
	}
	return ""
}

// output returns the first line that a program prints.
func output(ctx context.Context, path string, args ...string) string {
	out, err := exec.CommandContext(ctx, path, args...).Output()
	if err != nil {
		return filepath.Base(path) + ": " + err.Error()
	}
	return firstLine(strings.TrimSpace(string(out)))
}

func (m machine) String() string {
	return fmt.Sprintf("%s, %s, %s, %d cores, memory %s, load before the run %s, %s. %s; %s.",
		m.Date.Format("2006-01-02 15:04 UTC"), m.System, m.CPU, m.Cores, m.Memory, m.Load, m.Go, m.Version, m.Rclone)
}
