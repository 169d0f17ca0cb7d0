//go:build race

package gossip_test

// members of the large cluster: the race detector makes it eight times slower.
const large = 20
