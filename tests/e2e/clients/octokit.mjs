import { Octokit } from "@octokit/core";
const octokit = new Octokit({ auth: process.env.GITHUB_TOKEN });
const { data: user } = await octokit.request("GET /user");
const { data: issue } = await octokit.request("POST /repos/{owner}/{repo}/issues", { owner: "o", repo: "r", title: "t" });
console.log(JSON.stringify([user.login, issue.title]));
