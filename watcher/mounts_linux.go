package watcher

import (
	"bufio"
	"context"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// Mounts returns the directories below the root on which file systems are mounted, with a slash at their ends, in order.
func (d *Directory) Mounts(context.Context) ([]string, error) {
	root, err := filepath.Abs(d.path)
	if err != nil {
		return nil, err
	}
	if root, err = filepath.EvalSymlinks(root); err != nil {
		return nil, d.openError(err)
	}
	f, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return nil, nil // no /proc: the other guards remain
	}
	defer f.Close()
	return mountsBelow(f, root)
}

// mountsBelow reads the lines of mountinfo (proc_pid_mountinfo(5)).
func mountsBelow(r io.Reader, root string) ([]string, error) {
	var mounts []string
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		fields := strings.Fields(lines.Text())
		if len(fields) < 5 {
			continue
		}
		below, ok := strings.CutPrefix(unescapeMount(fields[4]), strings.TrimSuffix(root, "/")+"/")
		if ok && below != "" {
			mounts = append(mounts, below+"/")
		}
	}
	if err := lines.Err(); err != nil {
		return nil, err
	}
	slices.Sort(mounts)
	return slices.Compact(mounts), nil
}

// unescapeMount decodes the octal escapes of a path in mountinfo.
func unescapeMount(path string) string {
	if !strings.Contains(path, `\`) {
		return path
	}
	var b strings.Builder
	for i := 0; i < len(path); i++ {
		if path[i] == '\\' && i+3 < len(path) {
			if n, err := strconv.ParseUint(path[i+1:i+4], 8, 8); err == nil {
				b.WriteByte(byte(n))
				i += 3
				continue
			}
		}
		b.WriteByte(path[i])
	}
	return b.String()
}
