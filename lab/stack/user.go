//go:build linux

package stack

import (
	"fmt"
	"os/user"
	"strconv"
)

// account is a user of the machine.
type account struct{ uid, gid int }

func lookup(name string) (account, error) {
	u, err := user.Lookup(name)
	if err != nil {
		return account{}, fmt.Errorf("%w: is its package installed?", err)
	}
	uid, err := strconv.Atoi(u.Uid)
	if err != nil {
		return account{}, err
	}
	gid, err := strconv.Atoi(u.Gid)
	return account{uid, gid}, err
}
