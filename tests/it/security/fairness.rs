//! Fairness: what one caller or namespace uses leaves room for the others.

use lineshaft::proto::v1::{self, Priority, TaskState};

use crate::support::{Server, noop, task};

fn of(namespace: &str, priority: Priority, task: v1::SubmitTaskRequest) -> v1::SubmitTaskRequest {
    v1::SubmitTaskRequest { namespace: namespace.into(), priority: priority.into(), ..task }
}

async fn running(server: &Server) -> i64 {
    let request = v1::GetPoolMetricsRequest { name: "default".into(), ..Default::default() };
    server.pools().get_pool_metrics(request).await.unwrap().into_inner().metrics.unwrap().running
}

#[tokio::test]
async fn a_namespace_leaves_workers_to_others_whatever_its_tasks_and_priorities_are() {
    let mut server = Server::start("[[pool]]\nname = \"default\"\nsize = 4\nmax_running_per_namespace = 3\n");
    let pool = server.pools().get_pool(v1::GetPoolRequest { name: "default".into() }).await.unwrap().into_inner();
    assert_eq!(pool.pool.unwrap().max_running_per_namespace, 3);
    let day = || of("loud", Priority::Critical, task("io", "86400"));
    let batch = v1::BatchSubmitTasksRequest { tasks: vec![day(); 600], batch_id: String::new() };
    let ids = server.tasks().batch_submit_tasks(batch).await.unwrap().into_inner().task_ids;
    for id in &ids[..3] {
        server.wait_started(id).await;
    }
    let quiet = async |server: &Server| {
        let id = server.submit(of("quiet", Priority::Low, noop())).await;
        assert_eq!(server.wait_finished(&id).await.state(), TaskState::Completed);
        assert_eq!(running(server).await, 3);
    };
    quiet(&server).await;
    server.kill9();
    server.start_again();
    for id in &ids[..3] {
        server.wait_started(id).await;
    }
    quiet(&server).await;
    let cancel = v1::CancelTaskRequest { task_id: ids[0].clone(), ..Default::default() };
    server.tasks().cancel_task(cancel).await.unwrap();
    server.wait_started(&ids[3]).await;
    quiet(&server).await;
}
