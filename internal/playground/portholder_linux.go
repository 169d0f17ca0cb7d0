package main

import (
	"bufio"
	"bytes"
	"encoding/hex"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// portHolder finds the process that listens on an address or on all addresses
// of that port, and the playground's mark if it is a playground's. It finds
// what /proc shows to this user, perhaps nothing: pid 0.
func portHolder(network string, addr netip.AddrPort) (pid int, program, mark string) {
	var inodes []string
	for _, table := range []string{network, network + "6"} {
		inodes = append(inodes, socketInodes("/proc/net/"+table, addr)...)
	}
	if len(inodes) == 0 {
		return 0, "", ""
	}
	links, _ := filepath.Glob("/proc/[0-9]*/fd/*")
	for _, link := range links {
		to, err := os.Readlink(link)
		if err != nil || !slices.Contains(inodes, to) {
			continue
		}
		dir := filepath.Dir(filepath.Dir(link))
		pid, _ := strconv.Atoi(filepath.Base(dir))
		comm, _ := os.ReadFile(filepath.Join(dir, "comm"))
		environ, _ := os.ReadFile(filepath.Join(dir, "environ"))
		for _, variable := range bytes.Split(environ, []byte{0}) {
			if value, ok := bytes.CutPrefix(variable, []byte(markVariable+"=")); ok {
				mark = string(value)
			}
		}
		return pid, strings.TrimSpace(string(comm)), mark
	}
	return 0, "", ""
}

// socketInodes are the sockets of a table, as links in /proc/PID/fd name them,
// that keep the address from being listened on.
func socketInodes(table string, addr netip.AddrPort) []string {
	f, err := os.Open(table)
	if err != nil {
		return nil
	}
	defer f.Close()
	var inodes []string
	for lines := bufio.NewScanner(f); lines.Scan(); {
		// sl local_address rem_address st ... inode is the tenth: proc(5).
		fields := strings.Fields(lines.Text())
		if len(fields) < 10 {
			continue
		}
		local, err := parseProcAddr(fields[1])
		if err != nil || local.Port() != addr.Port() {
			continue
		}
		const listen = "0A" // TCP_LISTEN
		if strings.Contains(table, "tcp") && fields[3] != listen {
			continue
		}
		if a := local.Addr().Unmap(); a == addr.Addr() || a.IsUnspecified() {
			inodes = append(inodes, "socket:["+fields[9]+"]")
		}
	}
	return inodes
}

// parseProcAddr reads an address such as 0100007F:041D: words of four bytes,
// each in this machine's order, which is little-endian wherever it matters.
func parseProcAddr(s string) (netip.AddrPort, error) {
	host, port, _ := strings.Cut(s, ":")
	b, err := hex.DecodeString(host)
	if err != nil {
		return netip.AddrPort{}, fmt.Errorf("address %q: %w", s, err)
	}
	for word := range slices.Chunk(b, 4) {
		slices.Reverse(word)
	}
	a, ok := netip.AddrFromSlice(b)
	if !ok {
		return netip.AddrPort{}, fmt.Errorf("address %q: %d bytes", s, len(b))
	}
	p, err := strconv.ParseUint(port, 16, 16)
	if err != nil {
		return netip.AddrPort{}, fmt.Errorf("address %q: %w", s, err)
	}
	return netip.AddrPortFrom(a, uint16(p)), nil
}
