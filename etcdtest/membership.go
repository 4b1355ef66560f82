package etcdtest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
)

// Leader waits until the cluster has a leader that a majority of its members follow, and returns its index. Members
// that are down or frozen are not asked, so after the leader has been killed or frozen it is the next one that is
// returned.
func (c *Cluster) Leader(ctx context.Context) (int, error) {
	index := -1
	err := c.poll(ctx, nil, func(ctx context.Context) (err error) {
		index, err = c.askLeader(ctx)
		return err
	})
	if err != nil {
		return -1, fmt.Errorf("etcdtest: waiting for a leader: %w", err)
	}
	return index, nil
}

// askLeader asks all members at once who leads.
func (c *Cluster) askLeader(ctx context.Context) (int, error) {
	members := c.Members()
	answers := make([]*pb.StatusResponse, len(members))
	err := each(members, func(i int, m *Member) error {
		if srv, frozen := m.server(); srv == nil || frozen {
			return nil
		}
		st, err := m.status(ctx)
		answers[i] = st
		return err
	})

	voters := 0
	for _, st := range answers {
		if st == nil || !st.IsLearner {
			voters++ // one that does not answer may well be a voter
		}
	}
	for i, lead := range answers {
		if lead == nil || lead.Leader == 0 || lead.Leader != lead.Header.MemberId {
			continue
		}
		followers := 0
		for _, st := range answers {
			if st != nil && !st.IsLearner && st.RaftTerm == lead.RaftTerm && st.Leader == lead.Leader {
				followers++
			}
		}
		if followers > voters/2 {
			return i, nil
		}
	}
	return -1, errors.Join(errors.New("no member leads a majority"), err)
}

// MoveLeader makes the i-th member the leader and waits until it is. It does nothing when that member leads already.
func (c *Cluster) MoveLeader(ctx context.Context, i int) error {
	err := c.poll(ctx, nil, func(ctx context.Context) error {
		lead, err := c.askLeader(ctx)
		if err != nil || lead == i {
			return err
		}
		m := c.Member(lead)
		_, err = pb.NewMaintenanceClient(m.conn).MoveLeader(ctx, &pb.MoveLeaderRequest{TargetID: c.Member(i).ID()})
		if err != nil {
			return err
		}
		return fmt.Errorf("member %d led", lead) // until the next round finds the other one
	})
	if err != nil {
		return fmt.Errorf("etcdtest: making member %d the leader: %w", i, err)
	}
	return nil
}

// AddMember adds a voting member, starts it and waits until it is ready. It comes last in [Cluster.Members]. A
// cluster of several members takes none in its first five seconds, as etcd is by default strict about changes to a
// young cluster; AddMember waits that long.
func (c *Cluster) AddMember(ctx context.Context) (*Member, error) {
	// By way of a learner: one that has a vote at once makes the cluster lose its quorum until it has started, if
	// there was a single member before.
	m, err := c.AddLearner(ctx)
	if err != nil {
		return nil, err
	}
	err = c.change(ctx, func(ctx context.Context, cluster pb.ClusterClient) error {
		_, err := cluster.MemberPromote(ctx, &pb.MemberPromoteRequest{ID: m.ID()})
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("etcdtest: promoting member %s: %w", m.name, err)
	}
	err = m.poll(ctx, func(ctx context.Context) error {
		st, err := m.status(ctx)
		if err == nil && st.IsLearner {
			err = errors.New("it still is a learner")
		}
		return err
	})
	if err != nil {
		return nil, m.explain(fmt.Errorf("etcdtest: promoting member %s: %w", m.name, err))
	}
	return m, nil
}

// AddLearner is [Cluster.AddMember] for a member that has no vote.
func (c *Cluster) AddLearner(ctx context.Context) (_ *Member, err error) {
	if err := c.join(); err != nil {
		return nil, err
	}
	defer c.joining.Done()
	m, err := c.newMember()
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, m.close())
		}
	}()
	var resp *pb.MemberAddResponse
	err = c.change(ctx, func(ctx context.Context, cluster pb.ClusterClient) (err error) {
		req := &pb.MemberAddRequest{PeerURLs: []string{m.launch.advertisePeer}, IsLearner: true}
		resp, err = cluster.MemberAdd(ctx, req)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("etcdtest: adding member %s: %w", m.name, err)
	}
	m.setID(resp.Member.ID)
	m.launch.existing = true
	m.launch.initialCluster = initialCluster(resp.Members, m)
	if err := m.start(); err != nil {
		return nil, err
	}
	if err := m.WaitReady(ctx); err != nil {
		return nil, err
	}
	return m, c.admit(m)
}

// initialCluster lists the members for the newest of them, which is the one that has no name yet.
func initialCluster(members []*pb.Member, newest *Member) string {
	var list []string
	for _, m := range members {
		name := m.Name
		if m.ID == newest.ID() {
			name = newest.name
		}
		for _, u := range m.PeerURLs {
			list = append(list, name+"="+u)
		}
	}
	return strings.Join(list, ",")
}

// RemoveMember removes the i-th member from the cluster and ends its server. The indexes of those behind it move down
// by one. The cluster has to have a quorum without it.
func (c *Cluster) RemoveMember(ctx context.Context, i int) error {
	m := c.Member(i)
	err := c.change(ctx, func(ctx context.Context, cluster pb.ClusterClient) error {
		_, err := cluster.MemberRemove(ctx, &pb.MemberRemoveRequest{ID: m.ID()})
		return err
	})
	if err != nil {
		return fmt.Errorf("etcdtest: removing member %s: %w", m.name, err)
	}
	c.mu.Lock()
	c.members = slices.DeleteFunc(slices.Clone(c.members), func(o *Member) bool { return o == m })
	c.mu.Unlock()
	return m.close()
}

// change asks the leader for a change of membership, again for as long as it finds the cluster too young for one, or
// a learner too far behind.
func (c *Cluster) change(ctx context.Context, ask func(context.Context, pb.ClusterClient) error) error {
	var final error
	err := c.poll(ctx, nil, func(ctx context.Context) error {
		lead, err := c.askLeader(ctx)
		if err != nil {
			return err
		}
		err = ask(ctx, pb.NewClusterClient(c.Member(lead).conn))
		known := rpctypes.Error(err)
		if errors.Is(known, rpctypes.ErrUnhealthy) || errors.Is(known, rpctypes.ErrMemberLearnerNotReady) {
			return err
		}
		final = err
		return nil
	})
	return errors.Join(err, final)
}
