package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// programs are the paths of the programs, each empty if the program is not here.
type programs struct {
	kbsync, lean            string
	peer                    string
	rclone, curl, find      string
	versitygw               string
	rcloneMissing, s3Reason string // why a program is not here
}

const rcloneVersion = "v1.76.0"

// findPrograms finds the programs, and builds or installs what it can.
func (h *harness) findPrograms(ctx context.Context, install bool) error {
	p := &h.programs
	if _, err := os.Stat(p.kbsync); err != nil {
		return fmt.Errorf("find kbsync: %w; run make build", err)
	}
	if p.lean != "" {
		if _, err := os.Stat(p.lean); err != nil {
			return fmt.Errorf("find kbsync without buckets: %w", err)
		}
	}
	if err := os.MkdirAll(h.tools, 0o755); err != nil {
		return err
	}
	p.peer = filepath.Join(h.tools, "peer")
	if err := h.goTool(ctx, filepath.Join(h.source, "internal", "bench"), "build", "-trimpath", "-o", p.peer, "./peer"); err != nil {
		return fmt.Errorf("build peer: %w", err)
	}
	p.curl, p.find = look("curl"), look("find")
	p.versitygw = installed(filepath.Join(h.source, "bin", "servers", "versitygw"))
	if p.versitygw == "" {
		p.s3Reason = "versitygw is missing: run make servers"
	}
	h.findRclone(ctx, install)
	return nil
}

// findRclone finds or installs rclone. Its absence is no error.
func (h *harness) findRclone(ctx context.Context, install bool) {
	p := &h.programs
	p.rclone = installed(filepath.Join(h.tools, "rclone"))
	if p.rclone == "" && install {
		h.logf("installing rclone %s, which takes some minutes", rcloneVersion)
		if err := h.goTool(ctx, os.TempDir(), "install", "github.com/rclone/rclone@"+rcloneVersion); err != nil {
			p.rcloneMissing = "rclone is missing: " + firstLine(err.Error())
		}
		p.rclone = installed(filepath.Join(h.tools, "rclone"))
	}
	if p.rclone == "" && p.rcloneMissing == "" {
		p.rcloneMissing = "rclone is missing: run without -install=false"
	}
}

// goTool runs the go command. What it installs goes to the directory of the tools.
func (h *harness) goTool(ctx context.Context, dir string, args ...string) error {
	cmd := exec.CommandContext(ctx, "go", args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOBIN="+h.tools)
	if out, err := cmd.CombinedOutput(); err != nil {
		return errors.New(strings.TrimSpace(string(last(out))))
	}
	return nil
}

// installed returns the path, or that of the program with its name in PATH, or nothing.
func installed(path string) string {
	if _, err := os.Stat(path); err == nil {
		return path
	}
	return look(filepath.Base(path))
}

func look(name string) string {
	path, err := exec.LookPath(name)
	if err != nil {
		return ""
	}
	return path
}

// absent returns the reason why a program of the system does not take part.
func absent(name, path string) string {
	if path != "" {
		return ""
	}
	return name + " is missing"
}

func firstLine(text string) string {
	line, _, _ := strings.Cut(text, "\n")
	return line
}
