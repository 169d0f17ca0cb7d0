// Package netns makes hosts out of network namespaces, so that real programs meet
// over real sockets on one machine, and links between them can be cut.
//
// A Net is a router, in a namespace of its own, with one link to each host. Hosts
// have one IPv4 address each and reach each other through the router, never the
// machine's own network. A cut is a black hole in the router: packets vanish, as
// behind a dead link, and nobody is told. It works per pair of hosts and per
// direction, which a bridge without a packet filter does not.
//
// It needs Linux, root and iproute2's ip. Where these are not, the test is skipped,
// unless PUPPETSRV_NETNS=required in the environment says that it must run. Delay also
// needs tc and the kernel's netem, and skips without.
//
// Nothing is ever made in the namespace that the caller is in. What is made has
// names in /run/netns that begin with "puppetsrv-" and the owner's process id, and
// is removed at the end of the test, with every process in it. What an owner that was
// killed has left is removed by the next New.
package netns
