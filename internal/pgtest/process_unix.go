//go:build unix

package pgtest

import (
	"os"
	"os/exec"
	"os/user"
	"strconv"
	"syscall"
)

// serverUser returns the user of the servers, or nil for the own one: PostgreSQL and PgBouncer refuse to run as root.
func serverUser() (*syscall.Credential, error) {
	if os.Geteuid() != 0 {
		return nil, nil
	}
	u, err := user.Lookup("postgres")
	if err != nil {
		if u, err = user.Lookup("nobody"); err != nil {
			return nil, err
		}
	}
	uid, err := strconv.ParseUint(u.Uid, 10, 32)
	if err != nil {
		return nil, err
	}
	gid, err := strconv.ParseUint(u.Gid, 10, 32)
	if err != nil {
		return nil, err
	}
	return &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}, nil
}

// giveAway makes the user of the servers the owner of a path.
func giveAway(path string) error {
	u, err := serverUser()
	if err != nil || u == nil {
		return err
	}
	return os.Chown(path, int(u.Uid), int(u.Gid))
}

func asServerUser(cmd *exec.Cmd) error {
	u, err := serverUser()
	if err != nil {
		return err
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: u}
	endWithParent(cmd.SysProcAttr)
	return nil
}
