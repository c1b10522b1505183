package watcher

import (
	"bufio"
	"cmp"
	"context"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// mountTable is the table of the file systems that this process sees.
const mountTable = "/proc/self/mountinfo"

// Mounts returns the directories below the root on which file systems are mounted, with a slash at their ends, in order.
func (d *Directory) Mounts(context.Context) ([]string, error) {
	f, err := os.Open(mountTable)
	if err != nil {
		return nil, nil // no /proc: the other guards remain
	}
	defer f.Close()
	mounts, err := d.mounts(f)
	keys := make([]string, len(mounts))
	for i, m := range mounts {
		keys[i] = m.key
	}
	return slices.Compact(keys), err
}

// A mounted is a file system below the root.
type mounted struct {
	key string // of its directory, with a slash at its end
	id  string // of the mount
}

// mounts reads the table of mounts.
func (d *Directory) mounts(table io.Reader) ([]mounted, error) {
	root, err := filepath.Abs(d.path)
	if err != nil {
		return nil, err
	}
	if root, err = filepath.EvalSymlinks(root); err != nil {
		return nil, d.openError(err)
	}
	return mountsBelow(table, root)
}

// mountsBelow reads the lines of mountinfo (proc_pid_mountinfo(5)).
func mountsBelow(r io.Reader, root string) ([]mounted, error) {
	var mounts []mounted
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		fields := strings.Fields(lines.Text())
		if len(fields) < 5 {
			continue
		}
		below, ok := strings.CutPrefix(unescapeMount(fields[4]), strings.TrimSuffix(root, "/")+"/")
		if ok && below != "" {
			mounts = append(mounts, mounted{below + "/", fields[0] + " " + fields[2]})
		}
	}
	if err := lines.Err(); err != nil {
		return nil, err
	}
	slices.SortFunc(mounts, func(a, b mounted) int { return cmp.Or(strings.Compare(a.key, b.key), strings.Compare(a.id, b.id)) })
	return mounts, nil
}

// A mountWatch notices when file systems below a root are mounted and unmounted. One goroutine may use it.
type mountWatch struct {
	dir   *Directory
	table *os.File // nil if there is no /proc
	last  []mounted
}

// watchMounts begins to watch the mounts.
func (d *Directory) watchMounts() *mountWatch {
	w := &mountWatch{dir: d}
	// Not os.Open: the poller of the runtime would take the reports of changes.
	if fd, err := unix.Open(mountTable, unix.O_RDONLY|unix.O_CLOEXEC, 0); err == nil {
		w.table = os.NewFile(uintptr(fd), mountTable)
		w.last, _ = d.mounts(w.table)
	}
	return w
}

// changed reports whether the mounts have changed since the last call. That costs one system call while nothing is mounted anywhere.
func (w *mountWatch) changed() bool {
	if w.table == nil {
		return false
	}
	fds := []unix.PollFd{{Fd: int32(w.table.Fd()), Events: unix.POLLPRI}}
	if n, err := unix.Poll(fds, 0); err != nil || n == 0 || fds[0].Revents&(unix.POLLPRI|unix.POLLERR) == 0 {
		return false
	}
	if _, err := w.table.Seek(0, io.SeekStart); err != nil {
		return false
	}
	now, err := w.dir.mounts(w.table)
	if err != nil || slices.Equal(now, w.last) {
		return false // a missing root is noticed elsewhere
	}
	w.last = now
	return true
}

func (w *mountWatch) close() {
	if w.table != nil {
		w.table.Close()
	}
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
