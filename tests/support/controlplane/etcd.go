package main

import (
	"errors"
	"net/url"
	"time"

	"go.etcd.io/etcd/server/v3/embed"
)

// startEtcd starts a member that is alone, on ports that the kernel chooses, with its data in the folder.
func startEtcd(folder string) (*embed.Etcd, error) {
	// Nobody connects to the peers' address, so it may say port 0 where others would need the real one.
	anyPort := url.URL{Scheme: "http", Host: loopback + ":0"}
	config := embed.NewConfig()
	config.Dir = folder
	config.LogLevel = "error"
	config.UnsafeNoFsync = true      // the data is thrown away
	config.EnableGRPCGateway = false // it would dial port 0 again and again
	config.ListenClientUrls = []url.URL{anyPort}
	config.AdvertiseClientUrls = config.ListenClientUrls
	config.ListenPeerUrls = []url.URL{anyPort}
	config.AdvertisePeerUrls = config.ListenPeerUrls
	config.InitialCluster = config.InitialClusterFromName(config.Name)
	etcd, err := embed.StartEtcd(config)
	if err != nil {
		return nil, err
	}
	select {
	case <-etcd.Server.ReadyNotify():
		return etcd, nil
	case err := <-etcd.Err():
		return nil, err
	case <-time.After(startSeconds * time.Second):
		return nil, errors.New("it elected no leader")
	}
}

func etcdAddress(etcd *embed.Etcd) string {
	return "http://" + etcd.Clients[0].Addr().String()
}
