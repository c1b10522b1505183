package pgtest

import (
	"io"
	"net"
	"net/url"
	"sync"
	"testing"
	"time"
)

// A Proxy stands between a client and a server, and can break their connections.
type Proxy struct {
	to       string // host:port of the server
	listener net.Listener
	group    sync.WaitGroup

	mu    sync.Mutex
	open  *sync.Cond // a change of state
	state proxyState
	rate  int // bytes a second of each connection and direction; 0 for no limit
	conns map[net.Conn]bool
}

type proxyState int

const (
	forwards proxyState = iota
	cut                 // new connections are closed at once
	silent              // connections stay open, and no byte passes
	ended
)

// NewProxy starts a proxy to the server of the URL, and returns the URL that leads through it. The proxy ends with the
// test.
func NewProxy(tb testing.TB, to string) (*Proxy, string) {
	tb.Helper()
	u, err := url.Parse(to)
	failOrSkip(tb, err)
	p := &Proxy{to: u.Host, conns: map[net.Conn]bool{}}
	p.open = sync.NewCond(&p.mu)
	p.listener, err = net.Listen("tcp", "127.0.0.1:0")
	failOrSkip(tb, err)
	p.group.Go(p.accept)
	tb.Cleanup(func() {
		_ = p.listener.Close() // accept ends
		p.set(ended)
		p.group.Wait()
	})
	u.Host = p.listener.Addr().String()
	return p, u.String()
}

// Cut closes all connections, and every new one, until Restore.
func (p *Proxy) Cut() { p.set(cut) }

// Silence keeps all connections open and lets no byte pass until Restore, as a network that loses every packet.
func (p *Proxy) Silence() { p.set(silent) }

// Restore lets connections pass again, without a limit.
func (p *Proxy) Restore() {
	p.Limit(0)
	p.set(forwards)
}

// Limit lets that many bytes a second pass in each direction of a connection; 0 ends the limit.
func (p *Proxy) Limit(rate int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.rate = rate
}

// Reset ends all connections as a host does that has forgotten them. New connections pass.
func (p *Proxy) Reset() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for c := range p.conns {
		if tcp, ok := c.(*net.TCPConn); ok {
			_ = tcp.SetLinger(0) // Close sends a reset
		}
		_ = c.Close() // the copies end with it
	}
}

func (p *Proxy) set(state proxyState) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.state = state
	if state == cut || state == ended {
		for c := range p.conns {
			_ = c.Close() // the copies end with it
		}
	}
	p.open.Broadcast()
}

func (p *Proxy) accept() {
	for {
		c, err := p.listener.Accept()
		if err != nil {
			return
		}
		p.group.Go(func() { p.serve(c) })
	}
}

func (p *Proxy) serve(client net.Conn) {
	defer client.Close()
	if !p.add(client) {
		return
	}
	defer p.drop(client)
	server, err := net.Dial("tcp", p.to)
	if err != nil {
		return
	}
	defer server.Close()
	if !p.add(server) {
		return
	}
	defer p.drop(server)
	var group sync.WaitGroup
	for _, way := range [][2]net.Conn{{client, server}, {server, client}} {
		group.Go(func() {
			if _, err := io.Copy(gate{p, way[1]}, way[0]); err != nil {
				_ = way[0].Close()
				_ = way[1].Close()
			}
			// A peer that answers early and then closes must not cost the other one the answer, as a whole close would.
			_ = way[1].(*net.TCPConn).CloseWrite()
		})
	}
	group.Wait()
}

// add returns false if the proxy takes no connections.
func (p *Proxy) add(c net.Conn) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.state == cut || p.state == ended {
		return false
	}
	p.conns[c] = true
	return true
}

func (p *Proxy) drop(c net.Conn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.conns, c)
}

// A gate holds back what is written while the proxy is silent.
type gate struct {
	proxy *Proxy
	to    net.Conn
}

func (g gate) Write(b []byte) (int, error) {
	g.proxy.mu.Lock()
	for g.proxy.state == silent {
		g.proxy.open.Wait()
	}
	rate := g.proxy.rate
	g.proxy.mu.Unlock()
	if rate > 0 {
		time.Sleep(time.Duration(len(b)) * time.Second / time.Duration(rate))
	}
	return g.to.Write(b)
}
